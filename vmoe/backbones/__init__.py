"""Adapters that put MoE layers into host models, one file a library."""
