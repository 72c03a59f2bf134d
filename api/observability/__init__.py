"""What those who run Mizan see of it: logs, metrics and traces, none of which ever holds personal data or a secret."""
