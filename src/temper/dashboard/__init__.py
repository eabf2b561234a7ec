"""The pages in the browser: a playground beside live figures, and a frame that later pages slot into.

Server-rendered with Jinja2; htmx, uPlot and our own few modules of script come from this package, so the
pages work without internet and under a strict Content-Security-Policy. Everything a page does to a model
goes over the public HTTP API, as any other client's call would.
"""
