"""GeneralPoints: make a formula of four cards that equals the target."""
