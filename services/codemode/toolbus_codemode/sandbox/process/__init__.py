"""Run programs in processes forked from a prepared one."""
