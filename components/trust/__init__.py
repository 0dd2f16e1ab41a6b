"""Which candidate may pass: what it looks at, the rules, the gate."""
