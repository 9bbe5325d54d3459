"""python -m hiersched.cli"""

from __future__ import annotations

import sys

from hiersched.cli import main

sys.exit(main())
