"""The live view: events about calls, sent to watchers as they happen."""
