"""Type aliases that more than one room uses; imports nothing heavier than the standard library."""

from os import PathLike

type FilePath = str | PathLike[str]
