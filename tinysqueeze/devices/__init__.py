"""What a small device needs: a memory plan, integers, and plain C99."""
