"""What a page or picture drawn from evidence may do, in the words of a Content-Security-Policy. No other import: the plane reads it too."""

# Wherever it is opened from: nothing but show itself.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
