"""The stage `audit`: which wrong answers show the scene of the right one."""
