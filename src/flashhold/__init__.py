"""FlashHold: a stock-hold engine for flash sales."""
