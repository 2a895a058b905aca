"""What comes in: passages of any common shape. The caller's objects are never changed.

records.py  any object as named fields
fields.py   `text=`: which of the fields is the text
passage.py  a passage as read: id, metadata, first-stage score
reading.py  the text of one passage
tables.py   tables, and the lists in a search engine's answer
lists.py    all passages of what was passed
"""

from flashrank_lite.passages.fields import Fields, TextField
from flashrank_lite.passages.lists import (
    is_passage,
    read_judged,
    read_lists,
    read_pairs,
    read_passage,
    read_passages,
)
from flashrank_lite.passages.passage import Passage

__all__ = [
    "Fields",
    "Passage",
    "TextField",
    "is_passage",
    "read_judged",
    "read_lists",
    "read_pairs",
    "read_passage",
    "read_passages",
]
