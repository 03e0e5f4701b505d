"""`mumian-agent doctor`: what keeps a site from working, and what to do about it. Changes nothing."""
