"""``config.yaml`` as typed records, and messages about what is wrong in one."""
