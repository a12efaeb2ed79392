"""What handlers ask for by name: the services of the asker's cell, and who is asking.

Where a key names a cell that is here, `control` is that cell's; for operators and edges it is the home cell's, and a route that is
about another finds it in `control.cells`.
"""

from __future__ import annotations

from typing import TypeAlias

from litestar.di import NamedDependency

from app.control import Control
from app.projects.auth import Operator, Principal

ControlIn: TypeAlias = NamedDependency[Control]
PrincipalIn: TypeAlias = NamedDependency[Principal]
OperatorIn: TypeAlias = NamedDependency[Operator]
