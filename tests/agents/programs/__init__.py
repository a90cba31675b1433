"""The agent programs: how each is configured and started."""

from programs.claude import Claude
from programs.codex import Codex
from programs.gemini import Gemini
from programs.opencode import Opencode

ALL = {program.name: program for program in (Claude(), Codex(), Gemini(), Opencode())}
