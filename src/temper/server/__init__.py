"""HTTP over the Engine seam: OpenAI's and DeepSeek's API, and what operators need beside it.

It translates HTTP to requests and events to HTTP, and guards the door. Templates, tokens, thinking and
stop strings belong to the engines; which engine it serves, it never knows.
"""

from temper.server.app import create_app
from temper.server.run import serve
from temper.server.settings import ServerSettings
from temper.server.state import Served, served

__all__ = ["Served", "ServerSettings", "create_app", "serve", "served"]
