"""A model for `test_process`, in a file of its own because pydantic takes long to import."""

import pydantic


class ModelOrder(pydantic.BaseModel):
    total: int = 1
    lines: list[str] = ["first"]
