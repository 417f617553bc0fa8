"""Benchmarks of Armature: whole servers beside their peers, twins beside each other, allocations and instructions."""
