"""Begin an end-to-end recipe: the questions now, the training when there is an hour; a second call goes on.

Leave `stages` out and the same call teaches, distils, quantizes, examines and canaries: `temper recipe r1-mini`.
"""

import json
import tempfile
from pathlib import Path

from temper import api

for name, about in api.courses().items():
    print(f"{name}: {about}")

with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "r1-mini"
    found = api.course("r1-mini", out, ("data.count=50", "data.tasks={arithmetic=1}"), stages=("data",))
    with (out / found["results"]["data"]["train"]).open() as lines:
        record = json.loads(next(lines))

print(f"{found['results']['data']['num_records']} questions, such as:")
print(record["messages"][0]["content"].splitlines()[0])
print(record["messages"][1]["content"])
print(f"left: {', '.join(found['left'])}")
