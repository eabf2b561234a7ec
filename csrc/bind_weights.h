#pragma once

#include <nanobind/nanobind.h>

namespace temper {

void bind_weights(nanobind::module_& m);

}  // namespace temper
