"""OpenCV's importers, a module each; a new one is listed in pack/formats.py. No cv2 here.

Each module has these names:

- READER: the function of cv2.dnn, which a build with the importer has.
- BEFORE_ENGINE: that function's arguments between the file and an engine's number.
- read(reader, path, engine, extra): the net. engine: the number in a list, empty where OpenCV has
  one engine only. extra: inner layers, or tensors of the file, that are to be outputs.
- write_cut(file, value, path): write the part of a file that gives a value, the only output then.
  value: a tensor of the file, or a node of the frozen graph.
- carriers(names, entries, tensors, engine): {OpenCV layer: graph node whose value it holds}. names:
  from ``net.getLayerNames()`` before anything ran. entries: the pack's "layers", in topological
  order, each {"node", "op", "inputs"}. tensors: those of the conversion's manifest. A layer is left
  out when it holds no node's value; a node, when no layer holds it.
- absent(held, entries, tensors): {node: reason} of the nodes that no carrier of `held` holds.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from conformance.pack import formats

IMPORTERS: dict[str, ModuleType] = {
    name: import_module(f".{name}", __name__) for name in formats.IMPORTERS
}
