"""What handlers ask for by name: the instance, and who is asking."""

from __future__ import annotations

from typing import TypeAlias

from litestar.di import NamedDependency

from app.control import Control
from app.projects.auth import Operator, Principal

ControlIn: TypeAlias = NamedDependency[Control]
PrincipalIn: TypeAlias = NamedDependency[Principal]
OperatorIn: TypeAlias = NamedDependency[Operator]
