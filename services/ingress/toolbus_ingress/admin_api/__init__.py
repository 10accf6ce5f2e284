"""The administration's edge: HTTP to one question of policy, described by its own table."""
