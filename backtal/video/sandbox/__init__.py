"""Decoding in locked-down child processes, one for each video.

pool.py       in the process of the pipeline: keeps a child warm, lends one to a video
zygote.py     a process that has loaded PyAV once and forks the children
child.py      decodes one video, and can do nothing else
lockdown.py   what takes the rest away from it: limits, Landlock, seccomp
video.py      the `Video` that the pipeline sees; it survives the death of a child once
worker.py     one child as the pipeline sees it
messages.py, channel.py   what the two sides say to each other, and how
"""

from backtal.video.sandbox.pool import DecoderPool
from backtal.video.sandbox.settings import DecodeSettings

__all__ = ["DecodeSettings", "DecoderPool"]
