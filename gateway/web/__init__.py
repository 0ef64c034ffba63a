"""HTTP in, HTTP out: parse, call one service, render."""
