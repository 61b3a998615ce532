"""The JSON schemas of all events, and the AsyncAPI document: `python -m anabranch.schemas`."""
