"""The live page of a sweep: what a ledger holds now, in the report's words and looks, for browsers that watch.

It reads and never writes: `watched.py` looks, `live_sections.py` and `rendering.py` make a page of it, `server.py`
serves it to those whom `access.py` lets in.
"""
