"""Write-behind, sweep and audit between real stores."""
