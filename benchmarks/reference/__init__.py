"""The published MOTH procedure, written plainly from its description: what our own engine is measured against."""
