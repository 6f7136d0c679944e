"""One file a version, each with `upgrade` and `downgrade` written out by hand."""
