"""`vidtrain data`: one file per action, and `actions`, which picks it."""

from vidtrain.commands.data.actions import run as run
