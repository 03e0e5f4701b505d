"""Job specs in YAML files. Needs the extra `cli`."""

from mumian.spec.document import Fault, SpecError
from mumian.spec.loader import LoadedSpec, load_spec, load_specs

__all__ = ["Fault", "LoadedSpec", "SpecError", "load_spec", "load_specs"]
