"""What layers hand one another: frozen values without behaviour."""
