"""Regularisers that are added to the decoder's losses, whatever adapter learns."""
