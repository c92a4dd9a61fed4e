"""`sftrl plan --published`: training runs on TPUs whose speed is published, predicted from their configurations."""
