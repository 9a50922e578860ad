"""What a trained network is good for, from its checkpoint alone: evaluated, asked, explained, exported."""
