"""Telemetry of other packages, which is turned off."""

import sys
from types import ModuleType
from typing import cast


def disable_openvino_telemetry() -> None:
    """Keep OpenVINO and NNCF, which must not have been imported yet, from reporting to their vendor.

    They do without the package that they would report with if it cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))
