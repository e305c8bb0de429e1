"""Where pytest finds a conftest, it lets all tests below import what lies beside it: `voices` here."""
