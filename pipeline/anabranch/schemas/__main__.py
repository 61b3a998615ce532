"""`python -m anabranch.schemas`."""

import sys

from anabranch.schemas.generate import main

sys.exit(main(sys.argv[1:]))
