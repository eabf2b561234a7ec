from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.engines.native.sampling import resolve, scheduled_temperature
from temper.errors import Invalid, NotFound
from temper.profile.presets import task_preset, task_presets
from temper.profile.schema import SamplingConfig, ScheduleConfig
from temper.types import Sampling, TemperatureSchedule

NOTHING, PLAIN = Sampling(), SamplingConfig()


def chosen(request: Sampling = NOTHING, profile: SamplingConfig = PLAIN, **defaults: float):
    return resolve(request, profile, defaults, task_preset, 100)


def test_neutral_when_nobody_says_anything():
    found = chosen()
    assert found.temperature == 1.0
    assert found.schedule is None
    assert found.values["top_p"] == 1.0
    assert found.values["repetition_penalty"] == 1.0
    assert found.preset is None
    assert 0 <= found.seed < 2**64
    assert found.seed != chosen().seed


def test_each_layer_gives_way_to_the_one_above():
    name = task_presets()[0]
    preset = task_preset(name).sampling
    field = next(f for f in ("temperature", "top_p", "top_k") if getattr(preset, f) is not None)
    of = {"temperature": lambda f: f.temperature}.get(field, lambda f: f.values[field])
    low, high = 0.25 if field != "top_k" else 3, 0.75 if field != "top_k" else 4
    assert of(chosen(**{field: low})) == low
    assert of(chosen(profile=SamplingConfig(**{field: high}), **{field: low})) == high
    assert of(chosen(profile=SamplingConfig(preset=name), **{field: low})) == getattr(preset, field)
    assert of(chosen(profile=SamplingConfig(preset=name, **{field: high}))) == high
    assert of(chosen(Sampling(preset=name), SamplingConfig(**{field: high}))) == getattr(preset, field)
    assert of(chosen(Sampling(preset=name, **{field: low}), SamplingConfig(**{field: high}))) == low


def test_zero_and_false_count_as_said():
    assert chosen(Sampling(temperature=0.0), SamplingConfig(temperature=0.9)).temperature == 0.0
    assert chosen(Sampling(top_k=0), SamplingConfig(top_k=5)).values["top_k"] == 0


def test_a_plain_temperature_above_overrides_a_schedule_below():
    profile = SamplingConfig(temperature_schedule=ScheduleConfig(kind="linear", start=1.0, end=0.0, steps=4))
    assert chosen(profile=profile).schedule == TemperatureSchedule("linear", (), 1.0, 0.0, 4)
    assert chosen(Sampling(temperature=0.5), profile).schedule is None
    own = TemperatureSchedule("list", (0.1,))
    assert chosen(Sampling(temperature=0.5, temperature_schedule=own), profile).schedule == own


def test_params_carry_everything():
    request = Sampling(top_p=0.9, top_k=7, min_p=0.1, seed=-1, logit_bias=((3, 1.5),), no_repeat_ngram_size=2)
    params = chosen(request).params(2, 5, (9,))
    assert (params.top_p, params.top_k, params.min_p, params.no_repeat_ngram_size) == (0.9, 7, 0.1, 2)
    assert params.seed == 2**64 - 1
    assert (params.sample_index, params.min_tokens, params.stop_token_ids) == (2, 5, (9,))
    assert params.logit_bias == ((3, 1.5),)


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty"])
@given(value=st.floats(allow_nan=True).filter(lambda x: not -2 <= x <= 10))
def test_what_is_out_of_range_is_named(field: str, value: float):
    with pytest.raises(Invalid) as caught:
        chosen(Sampling(**{field: value}))
    assert caught.value.param == field


def test_unknown_preset_and_bad_schedules():
    with pytest.raises(NotFound):
        chosen(Sampling(preset="nope"))
    for schedule in (
        TemperatureSchedule("list"),
        TemperatureSchedule("linear", start=float("nan")),
        TemperatureSchedule("cosine", steps=0),
        TemperatureSchedule("list", (9.0,)),
    ):
        with pytest.raises(Invalid):
            chosen(Sampling(temperature_schedule=schedule))


@pytest.mark.parametrize(("schedule", "expected"), [
    (TemperatureSchedule("list", (1.0, 0.5)), [1.0, 0.5, 0.5, 0.5, 0.5]),
    (TemperatureSchedule("linear", start=1.0, end=0.0, steps=4), [1.0, 0.75, 0.5, 0.25, 0.0]),
    (TemperatureSchedule("cosine", start=1.0, end=0.0, steps=2), [1.0, 0.5, 0.0, 0.0, 0.0]),
    (TemperatureSchedule("paragraph", start=1.0, end=0.4, steps=2), [1.0, 0.7, 1.0, 0.7, 1.0]),
])  # fmt: skip
def test_shapes_of_schedules(schedule: TemperatureSchedule, expected: list[float]):
    found = [scheduled_temperature(schedule, step, step % 2) for step in range(5)]
    assert found == pytest.approx(expected)
