"""Configurations of other programs, read as plain values and said in vidtrain's options."""
