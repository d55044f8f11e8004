UPDATE tokens SET revoked_at = now_ms() WHERE id = $1 AND revoked_at IS NULL
