"""``python -m regions.edge``"""

import sys

from regions.edge.main import main

sys.exit(main())
