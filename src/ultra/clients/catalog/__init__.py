"""What Ultra knows of providers and of models, as data.

`PROVIDERS` says where each provider is and how it is asked, `known_quirks` how an endpoint differs from its
dialect, and `model_info` what a model can do and what it costs: the rows are in ``models.json``, which is
read when the first model is looked up.
"""

from ultra.clients.catalog.endpoint_quirks import known_quirks
from ultra.clients.catalog.model_info import Facts, ModelInfo, OutputMode
from ultra.clients.catalog.models import known_info, model_info
from ultra.clients.catalog.providers import PROVIDERS, Provider

__all__ = [
    "PROVIDERS",
    "Facts",
    "ModelInfo",
    "OutputMode",
    "Provider",
    "known_info",
    "known_quirks",
    "model_info",
]
