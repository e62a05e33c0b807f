"""What all tests share."""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)

# The same examples every time, so that a failure is a change's own; `CANO_EXAMPLES=new` explores.
settings.load_profile(os.environ.get("CANO_EXAMPLES", "same"))
