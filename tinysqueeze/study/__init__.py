"""Looking at one step: traced, checked, diagnosed, counted, told in formulas. Pictures are in `show`."""
