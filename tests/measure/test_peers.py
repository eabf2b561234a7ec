from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from temper.errors import NotFound
from temper.measure import peers, subjects
from temper.measure.workload.options import Load
from temper.profile.schema import FakeEngine, Profile

SERVER = f"""#!{sys.executable}
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"{{}}")
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def place(tmp_path: Path) -> peers.Place:
    weights = tmp_path / "weights.gguf"
    weights.touch()
    return peers.Place(tmp_path / "peers", Profile(), lambda source: weights, tmp_path)


def install(where: peers.Place, text: str) -> None:
    program = where.folder / "llama_cpp" / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


async def test_a_peer_is_started_and_ended(tmp_path):
    where = place(tmp_path)
    install(where, SERVER)
    async with peers.launched(peers.find("llamacpp"), where) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert Path(f"/proc/{server.pid}").exists()
    assert not Path(f"/proc/{server.pid}").exists()


async def test_a_peer_that_ends_early_is_missing_with_its_last_words(tmp_path):
    where = place(tmp_path)
    install(where, f"#!{sys.executable}\nimport sys\nsys.exit('no such model')\n")
    with pytest.raises(peers.Missing, match="ended with code 1: no such model"):
        async with peers.launched(peers.find("llamacpp"), where):
            pass


def test_the_command_holds_as_many_answers_as_asked_for(tmp_path):
    where = replace(place(tmp_path), most_streams=5)
    install(where, SERVER)
    command = peers.find("llamacpp").command(where, 1234)
    assert command[command.index("-np") + 1] == "5"
    assert command[command.index("-c") + 1] == str(5 * peers.CONTEXT_PER_STREAM)


def test_weights_are_requantized_once_and_a_failure_is_missing(tmp_path):
    where = place(tmp_path)
    install(where, SERVER)
    tool = where.folder / "llama_cpp" / "build" / "bin" / "llama-quantize"
    tool.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[3], 'w').write(sys.argv[4])\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    command = peers.find("llamacpp-q4_0").command(where, 1234)
    made = Path(command[command.index("-m") + 1])
    assert made.read_text() == "Q4_0"
    tool.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no room')\n")
    assert peers.find("llamacpp-q4_0").command(where, 1234) == command
    made.unlink()
    with pytest.raises(peers.Missing, match="llama-quantize failed: no room"):
        peers.find("llamacpp-q4_0").command(where, 1234)


@pytest.mark.parametrize("name", ["llamacpp", "llamacpp-q4_0", "vllm"])
async def test_a_peer_that_is_not_installed_is_named_with_its_script(tmp_path, name):
    where = place(tmp_path)
    peer = peers.find(name)
    with pytest.raises(peers.Missing, match="is not there"):
        async with peers.launched(peer, where):
            pass
    assert (Path(__file__).parents[2] / "benchmarks" / "peers" / peer.script).exists()
    assert str(where.folder) in peer.fix(where.folder)


async def test_missing_engines_stand_in_the_result(tmp_path):
    def opening(names):
        return subjects.side_by_side(names, Profile(engine=FakeEngine()), tmp_path, lambda source: tmp_path)

    with pytest.raises(NotFound, match=r"none of the engines is here: llamacpp: .*llama-server is not there"):
        await subjects.measure(opening(["llamacpp"]), Load(requests=1).variants(), 1, 1, lambda text: None)
    with pytest.raises(NotFound, match="did you mean 'llamacpp'"):
        await subjects.measure(opening(["llama-cpp"]), Load().variants(), 1, 1, lambda text: None)
