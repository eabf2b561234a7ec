"""Any OpenAI-compatible server as an engine: vLLM, SGLang, llama-server, Ollama, DeepSeek, OpenAI, another Temper."""

from temper.engines.openai.endpoint import Endpoint
from temper.engines.openai.engine import OpenAIEngine

__all__ = ["Endpoint", "OpenAIEngine"]
