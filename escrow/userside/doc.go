package userside
