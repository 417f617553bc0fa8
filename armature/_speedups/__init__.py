"""The compiled twins: the same stems, names and behaviour as `armature._pure`."""
