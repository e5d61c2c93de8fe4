"""What training did to a backbone: measured on its layers and features, as tables and figures."""
